"""Registry: entries by name, in order, each name once."""

import pytest

from unfreeze.registry import Registry


def test_entries_are_found_by_name_in_the_order_of_registration() -> None:
    fruit: Registry[int] = Registry("fruit")
    fruit.register("pear", 2)
    fruit.register("apple", 1)
    assert (list(fruit), fruit["apple"], "plum" in fruit, fruit.get("plum")) == (["pear", "apple"], 1, False, None)


def test_a_name_can_be_registered_once() -> None:
    fruit: Registry[int] = Registry("fruit")
    fruit.register("pear", 2)
    with pytest.raises(ValueError) as caught:
        fruit.register("pear", 3)
    assert str(caught.value) == "fruit 'pear' is already registered; choose another name"
    assert fruit["pear"] == 2


def test_the_error_for_an_unknown_name_lists_the_entries() -> None:
    fruit: Registry[int] = Registry("fruit")
    fruit.register("pear", 2)
    fruit.register("apple", 1)
    with pytest.raises(KeyError) as caught:
        fruit["plum"]
    assert caught.value.args == ("unknown fruit 'plum'; known are pear, apple",)
