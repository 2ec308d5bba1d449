"""The verbs beside the stages, one file a verb.

Each is a function of the workspace that returns a report; cli/ parses, report/ prints. Start
reading at status.py, the shortest.
"""
