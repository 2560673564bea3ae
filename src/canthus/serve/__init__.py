"""`canthus serve`: faces over HTTP. `worker` aligns what comes in, `app` speaks HTTP, `run` opens the port."""
