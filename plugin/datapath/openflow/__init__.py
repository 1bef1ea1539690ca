"""The OpenFlow datapath: the host's Open vSwitch, told over its management socket what each frame may do."""
