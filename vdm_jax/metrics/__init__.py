"""How good generated videos are: statistics of features of pretrained networks.

    videos -> feature network -> Moments -> Fréchet distance      (FVD, FID)
                              -> features -> kernel distance      (KVD)
                              -> logits -> inception score        (IS)

A number says nothing without the protocol that it was measured by: which
network, which pixels it saw, which and how many videos.  `protocol` writes
that down, and no number leaves this package without it.
"""
