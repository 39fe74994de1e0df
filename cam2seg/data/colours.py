"""The colour of each class, in pictures and in mask files that other tools open."""

# Okabe and Ito's colours, which colour-blind readers can tell apart too.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66),
           (213, 94, 0), (204, 121, 167), (0, 114, 178))


def class_colours(count: int) -> list[tuple[int, int, int]]:
    """The colours (red, green, blue) of `count` classes, all different and none of them black.

    Those after COLOURS are the ones that Pascal VOC gives to its classes: the bits of the number,
    dealt out to red, green and blue by turns, from the highest bit of each down.
    """
    def voc(number):
        return tuple(sum((number >> 3 * k + channel & 1) << 7 - k for k in range(8))
                     for channel in range(3))

    return [*COLOURS[:count], *(voc(n + 1) for n in range(len(COLOURS), count))]
