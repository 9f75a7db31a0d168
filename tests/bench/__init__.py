"""A load generator for the server, with upstreams that cost nothing to wait for.

``python -m tests.bench`` prints the table of ``docs/performance.md``: this server, and the layer that anybody
would write first (`plain`), one after the other under the same load. The server runs alone on one core; the
upstreams and the clients share the other. They are written to be light: plain callbacks on asyncio, frames
cut by hand.
"""
