"""What both distillation and calibration train with: losses, optimiser and schedule, augmentation, processes."""
