"""The box: state, actions, policies, executors, what it stores and how it is replayed."""
