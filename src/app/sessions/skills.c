/* Which skills an org ran lately. */
#include "app/sessions/sessions_int.h"
#include "app/sessions/statements_int.h"

/* Few sessions name a skill: a condition on it would have all of an org's read. */
static const struct mu_stmt q_skills = {
    "session_skills", "t",
    "SELECT skill, created_ms FROM sessions WHERE org_id = $1 AND view = 1 ORDER BY id DESC LIMIT "
    "2000",
    NULL};

static int take(void *arg, struct mu_row *row)
{
    const struct mu_session_skills *op = arg;
    mu_bytes skill = mu_row_bytes(row, 0);
    return skill.len ? op->each(op->arg, skill, mu_row_i64(row, 1)) : 0;
}

static int run_read(struct mu_read *read, struct mu_db *db)
{
    struct mu_session_skills *op = MU_CONTAINER(read, struct mu_session_skills, read);
    int r = MU_DB_RUN(db, &q_skills, take, op, MU_VT(op->org_id));
    return r < 0 ? r : 0;
}

static void read_done(struct mu_read *read, int result)
{
    struct mu_session_skills *op = MU_CONTAINER(read, struct mu_session_skills, read);
    op->done(op, result);
}

int mu_session_skills(struct mu_sessions *s, struct mu_session_skills *op)
{
    op->read.run = run_read;
    op->read.done = read_done;
    return mu_readers_submit(s->opts.readers, &op->read);
}

const struct mu_planned mu_skills_planned[] = {{&q_skills, "sessions_org"}, {NULL, NULL}};
