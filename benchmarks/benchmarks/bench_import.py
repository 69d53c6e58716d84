"""Import times in fresh processes; fastmlp's contains Numba's, and that NumPy's."""


class Import:
    def timeraw_fastmlp(self):
        return "import fastmlp"

    def timeraw_numba(self):
        return "import numba"

    def timeraw_numpy(self):
        return "import numpy"
