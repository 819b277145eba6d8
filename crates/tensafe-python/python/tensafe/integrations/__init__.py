"""tensafe behind the seams of systems that load models: one module each, imported when it is asked for."""
