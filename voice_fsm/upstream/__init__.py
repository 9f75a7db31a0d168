"""How upstreams are called: deadlines, the mapping of their failures, retries."""
