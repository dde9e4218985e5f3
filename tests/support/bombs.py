"""An import that needs more memory than it may use."""

# In children, for which the bound on one process's memory is none. The largest process, which is the one that the
# kernel ends, is the one that imports.
MEMORY_BOMB = """
    import os, time
    memory = 32
    for _ in range(3):
        if os.fork() == 0:
            keep = b"x" * (200 << 20)
            time.sleep(60)
    keep = b"x" * (900 << 20)
    time.sleep(60)
    def GET(): ...
"""
