"""Knowledge distillation: a student learns from what a teacher says of the inputs."""
