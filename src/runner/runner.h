/* `muster runner`: the process inside a sandbox that prepares the workspace, drives the agent and
 * tells how it ended (oz-worker.md 13). It is PID 1 there, but needs not be. */
#ifndef MU_RUNNER_RUNNER_H
#define MU_RUNNER_RUNNER_H

/* argv[0] is the word `runner`. Returns the status of the process: 2 usage, 127 git or the agent is
 * missing, 128 clone, 143 stopped, else that of the setup command or the agent. */
int mu_runner_main(int argc, char **argv);

/* True when git called this program for a credential (clone.c): then mu_runner_askpass() is all
 * that it shall do. */
int mu_runner_is_askpass(void);
int mu_runner_askpass(int argc, char **argv);

/* True for the name of a program that this one stands in for (shim.c); then mu_runner_shim() is all
 * that it does. Returns the exit status, or not at all. */
int mu_runner_is_shim(const char *name);
int mu_runner_shim(int argc, char **argv);

#endif
