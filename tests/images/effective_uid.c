/* The program of the `nonewprivs` test image: says which user's rights it runs with. Installed with the set-user-ID
 * bit, so that it tells whether a container may gain rights. */
#include <stdio.h>
#include <unistd.h>

int main(void) {
    return printf("Effective uid: %d\n", (int)geteuid()) < 0;
}
