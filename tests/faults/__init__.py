"""Jobs in subprocesses that are made to fail: they must end, say why, and leave nothing behind."""
