"""The losses of SFT, DPO, ORPO and KTO, attention over packed rows, the head on answers alone.

Start reading at objective.py.
"""
