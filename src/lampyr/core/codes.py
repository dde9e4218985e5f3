"""Every error the platform itself answers with: code, HTTP status, and one sentence for whoever called (SPEC 3)."""

from __future__ import annotations

from typing import NamedTuple


class Code(NamedTuple):
    """One error code: its HTTP status and the sentence a client reads when there is nothing more exact to say."""

    status: int
    message: str


CODES: dict[str, Code] = {
    "BAD_REQUEST": Code(400, "The request cannot be understood."),
    "NOT_FOUND": Code(404, "There is nothing at this address."),
    "METHOD_NOT_ALLOWED": Code(405, "This function does not answer that method; see the Allow header."),
    "REQUEST_TIMEOUT": Code(408, "The request took too long to arrive."),
    "PRECONDITION_FAILED": Code(412, "The file is not, or no longer, the one that the conditions of the request name."),
    "FUNCTION_PAYLOAD_TOO_LARGE": Code(413, "The request body is larger than this function accepts."),
    "URL_TOO_LONG": Code(414, "The request line is longer than 8 KiB."),
    "RANGE_NOT_SATISFIABLE": Code(416, "The file has no such bytes; Content-Range says how many it has."),
    "EXPECTATION_FAILED": Code(417, "Only 'Expect: 100-continue' can be met."),
    "RATE_LIMITED": Code(429, "Too many requests; try again after the time in Retry-After."),
    "BUDGET_EXCEEDED": Code(429, "The budget of this function is spent; try again after the time in Retry-After."),
    "REQUEST_HEADER_TOO_LARGE": Code(431, "The request has more than 100 headers or more than 32 KiB of them."),
    "FUNCTION_INVOCATION_FAILED": Code(500, "The function failed. Its log has the details under this id."),
    "INTERNAL_ERROR": Code(500, "The platform failed. Its log has the details under this id."),
    "FUNCTION_CRASHED": Code(502, "The function's process ended before it had answered."),
    "FUNCTION_THROTTLED": Code(503, "There is no capacity left for this function; try again after Retry-After."),
    "FUNCTION_INVOCATION_TIMEOUT": Code(504, "The function did not finish within its time limit."),
    "EDGE_FUNCTION_INVOCATION_TIMEOUT": Code(504, "The function did not begin its response in time."),
    "FUNCTION_OUT_OF_MEMORY": Code(507, "The function needed more memory than it may use."),
    "INFINITE_LOOP_DETECTED": Code(508, "Functions call one another too deeply over this gateway."),
}
