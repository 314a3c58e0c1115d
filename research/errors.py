"""The one exception whose text is meant for the person at the keyboard."""


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    The command line prints it as one line, without a traceback. A traceback is for our own faults.
    """

    # Or Keras 2 and 3, passing it on out of a layer, would wrap the line in the call's arguments.
    _keras_call_info_injected = True
    exit_code = 2  # of the command: 2 before anything was done, 1 once a run had begun
