/* Stored objects: one file per row of `files`, in the blob folder, written and synced before the
 * row commits. */
#ifndef MU_APP_FILES_FILES_H
#define MU_APP_FILES_FILES_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"

struct mu_files;

/* Makes the folder (0700) when it is missing; removes what was half written when a server was
 * killed. Blocking: start-up only. */
MU_MUST_USE int mu_files_new(const char *dir, struct mu_files **ret, struct mu_err *err);
struct mu_files *mu_files_free(struct mu_files *f);
/* Blocking; work pool only. Writes under a temporary name, syncs, renames, syncs the folder.
 * MU_E_DISK_FULL, MU_E_IO. */
MU_MUST_USE int mu_files_put(struct mu_files *f, const struct mu_id *id, mu_bytes content);
/* Blocking. Appends the content. MU_E_NOT_FOUND, MU_E_TOO_LARGE (the buffer's limit), MU_E_IO. */
MU_MUST_USE int mu_files_get(struct mu_files *f, mu_bytes id, struct mu_buf *dst);
/* Removes it; nothing when it is not there. */
void mu_files_remove(struct mu_files *f, mu_bytes id);

#endif
