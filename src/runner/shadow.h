/* Git folders of ours, below .oz/checkpoint, that borrow a repository's objects or stand for a
 * folder that is none: the repository's own configuration, attributes and hooks are never read, so
 * nothing of it can run or change a byte of what is kept. */
#ifndef MU_RUNNER_SHADOW_H
#define MU_RUNNER_SHADOW_H

#include "base/buf.h"
#include "runner/procs.h"
#include "runner/workspace.h"

enum { MU_SHADOW_PATH = 4400, MU_OBJECT_ID = 65, MU_SHADOW_ENV = 8, MU_SHADOW_WORDS = 500 };

struct mu_shadow {
    struct mu_procs *procs;
    const char *path; /* PATH */
    int64_t deadline; /* monotonic ms */
    int fd;           /* of the folder; -1 = closed */
    char dir[MU_SHADOW_PATH], tree[MU_SHADOW_PATH];
    char env_text[MU_SHADOW_ENV][MU_SHADOW_PATH + 32];
    char said[400]; /* what git said last, for an error */
};
struct mu_shadow_spec {
    struct mu_procs *procs;
    const char *path;
    int64_t deadline;
    int parent; /* the folder that it lies in */
    const char *parent_path;
    const char *name;
    const char *tree;    /* work tree */
    const char *borrow;  /* a git folder whose objects, shallow borders and exclude list are used */
    const char *objects; /* new objects go there; NULL = its own */
    bool sha256;
};
/* Makes it when it is missing and writes everything anew but its index and objects. -errno. */
MU_MUST_USE int mu_shadow_open(struct mu_shadow *s, const struct mu_shadow_spec *spec);
void mu_shadow_close(struct mu_shadow *s);

struct mu_shadow_run {
    const char *const *argv;
    const char *index;                       /* another index, by its path; NULL = its own */
    int in;                                  /* -1 = nothing */
    void (*sink)(void *arg, mu_bytes piece); /* standard output; NULL: both go to s->said */
    void *arg;
    int64_t file_max; /* largest file it may write; 0 = any */
};
/* How `git WHAT` ended, for people. */
void mu_shadow_words(const struct mu_shadow *s, const char *what, int status,
                     char ret[MU_SHADOW_WORDS]);
/* Git's status; 124 when the deadline has passed. */
int mu_shadow_git(struct mu_shadow *s, const struct mu_shadow_run *run);
/* The first word of what it prints is an object's name. Its status, 1 when it is none. */
int mu_shadow_id(struct mu_shadow *s, const char *const *argv, const char *index,
                 char ret[MU_OBJECT_ID]);
/* The same of a command that reads something or whose files are bounded; `sink` is not used. */
int mu_shadow_run_id(struct mu_shadow *s, const struct mu_shadow_run *run, char ret[MU_OBJECT_ID]);
/* A file of the folder with this content, opened for reading; -errno. */
int mu_shadow_feed(struct mu_shadow *s, const char *name, mu_bytes content);
/* Takes a repository's index over into the folder `dir`: it knows which files are as they were
 * checked out, without it every file is read again. Its time is kept, since git judges by it which
 * of them may have changed unseen. */
bool mu_shadow_copy_index(int dir, const char *from, const char *name);

/* In a git folder of ours: the folder exec/, to be named by GIT_EXEC_PATH. Git starts nothing else
 * than what is there, and its `git status` in a submodule, which would read the configuration of
 * that one, finds a program that does nothing. -errno. */
MU_MUST_USE int mu_shadow_exec(int dir);

/* A git that reads of a repository what it has to; what is asked for runs nothing of it. */
int mu_shadow_ask(struct mu_procs *p, const char *path, const char *git_dir,
                  const char *const *argv, struct mu_buf *ret);

#endif
