/* The folder .oz of the workspace, where a task's results lie (oz-worker.md 13.2 step 8). Whatever
 * a repository or an agent put there, nothing is written through a link. */
#ifndef MU_RUNNER_WORKSPACE_H
#define MU_RUNNER_WORKSPACE_H

#include "base/buf.h"
#include "base/err.h"

/* What the workspace is called in results, wherever it lies: who reads them looks below this. */
#define MU_WORKSPACE "/workspace"

struct mu_workspace {
    const char *root;
    int fd; /* of the root; -1 before open */
    int oz; /* of .oz; -1 before it was needed */
};

/* Makes the folder when it is missing. Worded. */
MU_MUST_USE int mu_workspace_open(struct mu_workspace *w, const char *root, struct mu_err *err);
void mu_workspace_close(struct mu_workspace *w);
/* Sees to it that .oz is a folder and w->oz is that one: anything else of this name is removed. */
MU_MUST_USE int mu_workspace_oz(struct mu_workspace *w, struct mu_err *err);

/* A new empty file in .oz, whatever had the name. Returns the descriptor or -errno. */
MU_MUST_USE int mu_workspace_create(struct mu_workspace *w, const char *name, int mode);
/* Whole and at once, or not at all. */
MU_MUST_USE int mu_workspace_write(struct mu_workspace *w, const char *name, mu_bytes content);
/* A regular file of .oz, at most ret->max bytes; MU_E_NOT_FOUND, MU_E_TOO_LARGE, -errno. */
MU_MUST_USE int mu_workspace_read(struct mu_workspace *w, const char *name, struct mu_buf *ret);

/* A file that the worker shall keep; not more or larger than the server takes (oz-worker.md 16). */
struct mu_result_file {
    char *name; /* [A-Za-z0-9_-][A-Za-z0-9._-]{0,127}, of no other file of the task */
    char *path; /* below MU_WORKSPACE */
    const char *media_type;
    int64_t bytes;
};
enum { MU_RESULT_FILES = 64 };
static const int64_t MU_RESULT_FILE_BYTES = 32LL << 20, MU_RESULT_ALL_BYTES = 256LL << 20;

/* Appends the regular files below .oz/artifacts, sorted by path, to ret[*n]: at most
 * MU_RESULT_FILES in all and of bounded size. Links, paths with control characters and what is too
 * large are left out; their number is returned. A file is named after its path below artifacts/. */
size_t mu_workspace_artifacts(struct mu_workspace *w, struct mu_result_file *ret, size_t *n);
void mu_result_file_fini(struct mu_result_file *f);
/* By the ending of the name. */
const char *mu_media_type(const char *name);

#endif
