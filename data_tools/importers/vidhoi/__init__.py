"""The commands ``hoi-data vidhoi`` and ``vidhoi-stats``: the annotation of VidHOI."""
