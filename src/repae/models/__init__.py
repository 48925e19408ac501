"""The networks: SiT and its projectors, the latent normaliser, autoencoders, the discriminator.

They return tensors; none of them knows a loss, a path or an optimiser.
"""
