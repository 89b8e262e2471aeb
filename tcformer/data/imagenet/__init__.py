"""ImageNet: class folders and class archives, augmentation, mixing."""
