"""Every option, declared once and checked once; the words, TOML files and recipes that they come from.

option.py declares them and kinds.py reads their values; parser.py reads command lines, toml_file.py files; config.py holds
the options of training, own.py those that one model alone has; sources.py says which source wins, and when a recipe is taken.
"""
