"""Every option, checked once; the command line, the TOML files and the recipes that they come from."""
