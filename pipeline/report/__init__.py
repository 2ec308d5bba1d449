"""Reports as tables for people; `--json` doesn't come here.

Start reading at stages.py; story.py says which of them `gapmend run` shows.
"""
