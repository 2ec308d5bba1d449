"""The local page over a workspace: `gapmend ui`.

Start reading at app.py: which address is which view. guard.py decides who may ask, site.py is what
every view is given, views/ has a module for each kind of page. The chat is views/chat.py, talks/
(which talks are open, on which models) and answering.py (a question, and answers as they come).
"""
