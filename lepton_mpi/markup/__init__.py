"""One HTML file that needs no other: ``elements.py`` makes the pieces, ``page.py`` the file."""
