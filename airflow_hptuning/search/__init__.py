"""Search algorithms: what to try next, as a function of what has been tried."""
