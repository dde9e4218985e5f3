"""The durable record of invocations: a journal that the gateway writes, and a database made of it."""
