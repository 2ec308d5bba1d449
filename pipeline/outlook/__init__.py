"""What can be known before any model is asked: what will stop a run late, and what it will cost.

`survey` reads the first records of each dataset once, `findings` says what won't do, with its line
of gapmend.yaml, and `cost` what a run will take.
"""
