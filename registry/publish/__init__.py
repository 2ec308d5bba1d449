"""Publishing: parcel, card, licence, a scan for secrets, signature, push.

Start reading at parcel.py, the list of what may leave, then push.py; card.py writes the README.
"""
