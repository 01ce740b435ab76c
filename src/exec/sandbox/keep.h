/* The command `keep` of the static program. */
#ifndef MU_EXEC_SANDBOX_KEEP_H
#define MU_EXEC_SANDBOX_KEEP_H

/* keep <session folder>: starts what its file `spec` says and stays until that has ended;
 * descriptor 3 is the first worker's control socket. keep --empty <session folder>: empties what a
 * range of ids left, from inside that range. Returns the exit status. */
int mu_keep_main(int argc, char **argv);

#endif
