/// System calls that Swift cannot reach.
#ifndef CHOST_HARNESS_H
#define CHOST_HARNESS_H

/// Moves the calling thread, and no other, into the network namespace that `fd` has open. 0, or a negative errno.
int harness_enter_network(int fd);

#endif
