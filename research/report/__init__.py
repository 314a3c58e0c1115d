"""Reports of runs over seeds, for `sparring report`: tables, charts and TensorBoard pages."""
