"""EC2 as the lab has it: the image, its package mirror, instance metadata, volumes, hypervisor."""
