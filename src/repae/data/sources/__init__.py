"""The sources of encoded images. Where files lie (`Storage`) and what class they have is told apart: any goes with any.

storage.py   folders            zipped.py, tarred.py   archives          hdf5.py   the reference's file
class_folders.py, tables.py     classes by folder, by dataset.json or CSV         classes.py   the rule for labels
webdataset.py, huggingface.py   what brings its own classes                       several.py   several as one
detect.py                       a path or URL, as a person gives it

What a person has to mend is a `UserError`, raised while a source is opened and before its first image is read. What is
wrong with one image is a `BrokenImageError`, raised when that is read.
"""
