"""The options of the verbs that work on data sets of images; importing them needs nothing heavy."""
