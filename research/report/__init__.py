"""`sparring report`: what runs over seeds come to, as tables, charts and TensorBoard pages."""
