"""The losses of SFT, DPO, ORPO and KTO, attention over packed rows, the head on answers alone.

Start reading at objective.py, what a run is trained to do; loss.py is the loss of a packed batch,
preference.py that of pairs and verdicts.
"""
