"""sdn decides: the model, allocation, reconciling, the store, the controller, its client and the command.

Nothing in here touches the kernel. What is decided travels as frozen values of `sdn.model`; who acts on them lives
in `plugin` (wires) and `runtime` (runs).
"""
