"""The local page over a workspace: `gapmend ui`.

Start reading at app.py: which address is which view. guard.py decides who may ask, site.py is what
every view is given, views/ has a module for each kind of page.
"""
