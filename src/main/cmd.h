/* The commands of the program: one table that dispatches, prints the help and writes the shell
 * completions. */
#ifndef MU_MAIN_CMD_H
#define MU_MAIN_CMD_H

#include "base/bytes.h"

/* Exit codes, part of the interface. */
enum {
    MU_EXIT_OK = 0,
    MU_EXIT_FAILED = 1,       /* the run failed or was cancelled; the command did not succeed */
    MU_EXIT_USAGE = 2,        /* wrong arguments or settings, refused input */
    MU_EXIT_NO_SERVER = 3,    /* no server, or it cannot answer now */
    MU_EXIT_NOT_ALLOWED = 4,  /* no key, or one that is not accepted */
    MU_EXIT_NOT_FOUND = 5,    /* what was named does not exist */
    MU_EXIT_TIMEOUT = 6,      /* the time to wait is over; the run goes on */
    MU_EXIT_INTERRUPTED = 130 /* Ctrl-C: detached, the run goes on */
};

struct mu_flag {
    const char *name;  /* without "--"; NULL ends a table */
    char letter;       /* its short form, or 0 */
    const char *value; /* what follows it ("ID"), NULL for a switch */
    bool repeat;
    const char *help;
};

struct mu_cli;
struct mu_cmd {
    const char *name, *sub;      /* "env", "create"; sub NULL for a command of one word */
    const char *args;            /* of the synopsis: "ID..." */
    const char *help;            /* one sentence */
    const struct mu_flag *flags; /* NULL: none of its own */
    size_t min_args, max_args;
    bool client; /* talks to a server: --url and --json are known too */
    int (*run)(struct mu_cli *cli);
    int (*raw)(int argc, char **argv); /* parses for itself; argv[0] is the command */
};
extern const struct mu_cmd mu_commands[]; /* ended by {0} */
/* The flags that every client command knows. */
extern const struct mu_flag mu_client_flags[];

enum { MU_CLI_MAX_FLAGS = 256, MU_CLI_MAX_ARGS = 256 };
struct mu_cli {
    const struct mu_cmd *cmd;
    const char *args[MU_CLI_MAX_ARGS];
    size_t n_args;
    struct {
        const struct mu_flag *flag;
        const char *value;
    } given[MU_CLI_MAX_FLAGS];
    size_t n_given;
};

/* Parses argv[1..] for a command: flags anywhere, "--" ends them. 0, or MU_EXIT_USAGE after saying
 * why on stderr; --help prints the command's help and gives -1. */
MU_MUST_USE int mu_cli_parse(const struct mu_cmd *cmd, int argc, char **argv, struct mu_cli *ret);
bool mu_cli_has(const struct mu_cli *cli, const char *flag);
/* The last value of a flag, or NULL. */
const char *mu_cli_value(const struct mu_cli *cli, const char *flag);
/* Walks all values of a flag: start with *at = 0; NULL at the end. */
const char *mu_cli_next(const struct mu_cli *cli, const char *flag, size_t *at);
/* A whole number in [min, max], `fallback` when the flag was not given; MU_EXIT_USAGE after saying
 * why. */
MU_MUST_USE int mu_cli_number(const struct mu_cli *cli, const char *flag, int64_t min, int64_t max,
                              int64_t fallback, int64_t *ret);
/* "muster: …" on stderr, and MU_EXIT_USAGE. */
int mu_usage(const struct mu_cmd *cmd, const char *fmt, ...) MU_PRINTF(2, 3);
void mu_print_help(void);
void mu_print_cmd_help(const struct mu_cmd *cmd);
/* Exact match, or NULL. */
const struct mu_cmd *mu_cmd_find(const char *name, const char *sub);

int mu_cmd_serve(int argc, char **argv);

int mu_cmd_worker(struct mu_cli *cli);
int mu_cmd_run(struct mu_cli *cli);
int mu_cmd_ps(struct mu_cli *cli);
int mu_cmd_show(struct mu_cli *cli);
int mu_cmd_logs(struct mu_cli *cli);
int mu_cmd_cancel(struct mu_cli *cli);
int mu_cmd_wait(struct mu_cli *cli);
int mu_cmd_rerun(struct mu_cli *cli);
int mu_cmd_rm(struct mu_cli *cli);
int mu_cmd_env_create(struct mu_cli *cli);
int mu_cmd_env_list(struct mu_cli *cli);
int mu_cmd_env_get(struct mu_cli *cli);
int mu_cmd_env_update(struct mu_cli *cli);
int mu_cmd_env_delete(struct mu_cli *cli);
int mu_cmd_schedule_create(struct mu_cli *cli);
int mu_cmd_schedule_list(struct mu_cli *cli);
int mu_cmd_schedule_get(struct mu_cli *cli);
int mu_cmd_schedule_update(struct mu_cli *cli);
int mu_cmd_schedule_pause(struct mu_cli *cli);
int mu_cmd_schedule_resume(struct mu_cli *cli);
int mu_cmd_schedule_delete(struct mu_cli *cli);
int mu_cmd_providers(struct mu_cli *cli);
int mu_cmd_workers_tokens(struct mu_cli *cli);
int mu_cmd_workers_revoke(struct mu_cli *cli);
int mu_cmd_keys_create(struct mu_cli *cli);
int mu_cmd_keys_list(struct mu_cli *cli);
int mu_cmd_keys_revoke(struct mu_cli *cli);
int mu_cmd_keys_rotate(struct mu_cli *cli);
int mu_cmd_login_link(struct mu_cli *cli);
int mu_cmd_sessions(struct mu_cli *cli);
int mu_cmd_session_new(struct mu_cli *cli);
int mu_cmd_session_show(struct mu_cli *cli);
int mu_cmd_session_stop(struct mu_cli *cli);
int mu_cmd_session_end(struct mu_cli *cli);
int mu_cmd_session_prompt(struct mu_cli *cli);
int mu_cmd_session_interrupt(struct mu_cli *cli);
int mu_cmd_session_checkpoints(struct mu_cli *cli);
int mu_cmd_session_fork(struct mu_cli *cli);
int mu_cmd_attach(struct mu_cli *cli);
int mu_cmd_approvals(struct mu_cli *cli);
int mu_cmd_approve(struct mu_cli *cli);
int mu_cmd_deny(struct mu_cli *cli);
int mu_cmd_pause(struct mu_cli *cli);
int mu_cmd_resume(struct mu_cli *cli);
int mu_cmd_diff(struct mu_cli *cli);
int mu_cmd_workers(struct mu_cli *cli);
int mu_cmd_drain(struct mu_cli *cli);
int mu_cmd_undrain(struct mu_cli *cli);
int mu_cmd_config(struct mu_cli *cli);
int mu_cmd_doctor(struct mu_cli *cli);
int mu_cmd_backup(struct mu_cli *cli);
int mu_cmd_restore(struct mu_cli *cli);
int mu_cmd_completion(struct mu_cli *cli);

#endif
