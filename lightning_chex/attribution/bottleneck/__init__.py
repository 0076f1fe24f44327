"""The information-bottleneck family: IBA, Inverse IBA, several layers, the input; statistics and optimisation."""
