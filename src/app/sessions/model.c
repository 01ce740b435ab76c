#include "app/sessions/model.h"

bool mu_state_may_move(int from, int to)
{
    static const struct {
        int from, to;
    } moves[] = {
        {20, 60}, {20, 90}, {20, 92}, {20, 94}, /* claimed; cancelled; failed before it began; queue
                                                   deadline */
        {22, 90}, {22, 94},                     /* a worker's part comes with the workers */
        {60, 20}, {60, 80}, {60, 90}, {60, 92}, {60, 94},
        {80, 90}, /* an accepted stop ends as cancelled, whatever was reported */
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(moves); i++) {
        if (moves[i].from == from && moves[i].to == to) {
            return true;
        }
    }
    return false;
}
