"""ministack with what it lacks of AWS for Postern's stacks.

Runs in ministack's own virtual environment (``lab/cloud/requirements.txt``): ``lab.cloud.cloud``
starts it as ``python -m lab.cloud.emulator``. Nothing here answers "success" for work not done;
what a module does not emulate, it refuses by name.
"""
