package lmi.driver;

import ai.djl.modality.Input;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** A request as a command describes it: {@code properties} and {@code content} pairs. */
record InputText(Map<String, String> properties, List<Item> content) {

    /** key: null for an item without a name. size: bytes of filling behind the text. */
    record Item(String key, String text, int size) {}

    static InputText of(JsonObject command) {
        List<Item> items = new ArrayList<>();
        if (command.has("body")) {
            items.add(new Item("data", command.get("body").getAsString(), 0));
        }
        if (command.has("content")) {
            for (JsonElement element : command.getAsJsonArray("content")) {
                JsonObject item = element.getAsJsonObject();
                items.add(
                        new Item(
                                item.has("key") ? item.get("key").getAsString() : null,
                                item.get("text").getAsString(),
                                item.has("size") ? item.get("size").getAsInt() : 0));
            }
        }
        return new InputText(strings(command.get("properties")), items);
    }

    static Map<String, String> strings(JsonElement object) {
        Map<String, String> map = new HashMap<>();
        if (object != null) {
            for (Map.Entry<String, JsonElement> entry : object.getAsJsonObject().entrySet()) {
                map.put(entry.getKey(), entry.getValue().getAsString());
            }
        }
        return map;
    }

    Input toInput() {
        Input input = new Input();
        properties.forEach(input::addProperty);
        for (Item item : content) {
            String text = item.text() + "x".repeat(item.size());
            if (item.key() == null) {
                input.add(text);
            } else {
                input.add(item.key(), text);
            }
        }
        return input;
    }
}
