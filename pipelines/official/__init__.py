"""Official data sets: what their publishers give, unpacked safely, converted and checked."""
