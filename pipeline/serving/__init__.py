"""An OpenAI-compatible server over the workspace's models.

Start reading at app.py: a request is read by requests.py and messages.py, answered by answers.py
and written by shapes.py. guard.py stands before all of it, life.py around it. Where vLLM can do
the same on a GPU, vllm.py says how it is started.
"""
