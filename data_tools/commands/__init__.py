"""How the commands of ``hoi-data`` read their arguments; the work itself is done elsewhere.

What takes long to import is imported inside the functions, so that ``--help`` answers at once.
"""
