"""What is fitted on labelled cases that no run was trained on: intervals, the gate, the weights of an average."""
